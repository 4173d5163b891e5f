class AccountStat < ApplicationRecord
  belongs_to :account
end
