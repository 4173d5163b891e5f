class DomainBlock < ApplicationRecord
  enum :severity, { silence: 0, suspend: 1, noop: 2 }
  validates :domain, presence: true, uniqueness: true
end
