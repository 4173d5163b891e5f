# Reviewing newcomers.
class Admin::AccountsController < ApplicationController
  before_action -> { require_right(:manage_users) }
  before_action :private_answer

  def index
    @users = User.where(approved: false).includes(:account)
  end

  def approve
    user = Account.find(params[:id]).user
    user.approve!
    Admin::ActionLog.create!(account: current_user.account, action: "approve", target_type: "User", target_id: user.id, human_identifier: user.account.username)
    redirect_to admin_accounts_path
  end

  def reject
    account = Account.joins(:user).find_by!(id: params[:id], users: { approved: false })
    account.destroy!
    redirect_to admin_accounts_path
  end
end
