class TermsOfService < ApplicationRecord
  validates :text, :changelog, presence: true
  validates :effective_date, presence: true, uniqueness: true
end
