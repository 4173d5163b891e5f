class ScheduledStatus < ApplicationRecord
  belongs_to :account
end
