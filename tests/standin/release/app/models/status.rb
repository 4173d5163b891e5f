class Status < ApplicationRecord
  belongs_to :account
  has_many :media_attachments, dependent: :nullify
  enum :visibility, { public: 0, unlisted: 1, private: 2, direct: 3, limited: 4 }, suffix: :visibility
  validates :text, length: { maximum: 500 }
  validates :text, presence: true, unless: -> { media_attachments.any? }
  scope :kept, -> { where(deleted_at: nil) }
  scope :visible, -> { kept.where(visibility: %i[public unlisted]).order(id: :desc) }
  after_create { update_columns(uri: "#{account.uri}/statuses/#{id}", url: "#{account.url}/#{id}") }
end
