class DomainBlock < ApplicationRecord
  enum :severity, { silence: 0, suspend: 1, noop: 2 }
  before_validation { self.domain = domain.strip.downcase if domain }
  validates :domain, presence: true, uniqueness: true, format: { with: /\A[a-z0-9.-]+\z/ }
end
