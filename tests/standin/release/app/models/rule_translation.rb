class RuleTranslation < ApplicationRecord
  belongs_to :rule
end
