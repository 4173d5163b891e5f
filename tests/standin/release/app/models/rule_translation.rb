class RuleTranslation < ApplicationRecord
  belongs_to :rule
  validates :language, presence: true, uniqueness: { scope: :rule_id }
  validates :text, presence: true, length: { maximum: 300 }
end
