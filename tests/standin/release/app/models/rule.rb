class Rule < ApplicationRecord
  has_many :translations, class_name: "RuleTranslation", dependent: :destroy
  scope :kept, -> { where(deleted_at: nil) }
  validates :text, presence: true, length: { maximum: 300 }

  def discard = update!(deleted_at: Time.now.utc)
end
