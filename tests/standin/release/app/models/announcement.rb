class Announcement < ApplicationRecord
  scope :published, -> { where(published: true) }
  validates :text, presence: true
  validates :starts_at, presence: true, if: :ends_at?
  validates :ends_at, presence: true, if: :starts_at?
  before_validation(on: :create) { assign_attributes(published: true, published_at: Time.now.utc) if scheduled_at.blank? }
end
