# Deleting one's old posts automatically.
class StatusesCleanupController < ApplicationController
  before_action :require_user
  before_action :private_answer

  def show; end

  def update
    given = params.require(:account_statuses_cleanup_policy).permit(:enabled, :min_status_age)
    AccountStatusesCleanupPolicy.find_or_initialize_by(account: current_user.account).update!(given)
    redirect_to statuses_cleanup_path
  end
end
