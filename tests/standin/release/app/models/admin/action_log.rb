class Admin::ActionLog < ApplicationRecord
  self.table_name = "admin_action_logs"
  belongs_to :account
end
