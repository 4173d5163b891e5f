class AccountStatusesCleanupPolicy < ApplicationRecord
  belongs_to :account
end
