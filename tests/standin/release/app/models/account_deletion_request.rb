class AccountDeletionRequest < ApplicationRecord
  belongs_to :account
end
