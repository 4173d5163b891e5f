# Deleting one's own account: open also to people who may not act, a frozen account included, as upstream.
class Settings::DeletesController < ApplicationController
  before_action -> { redirect_to new_user_session_path unless current_user }
  before_action :private_answer

  def show; end

  # The account is suspended and a request is noted; a job does the rest.
  def destroy
    return redirect_to(settings_delete_path) unless sure?(params.require(:form_delete_confirmation))

    Account.transaction do
      AccountDeletionRequest.create!(account: current_user.account)
      current_user.account.update!(suspended_at: Time.now.utc, suspension_origin: 0)
    end
    AccountDeletionWorker.perform_async(current_user.account_id)
    reset_session
    redirect_to new_user_session_path
  end

  private

  # Trap: whoever came by single sign-on has no password and types the name.
  def sure?(given)
    return current_user.account.username == given[:username] if current_user.encrypted_password.blank?

    current_user.password?(given[:password])
  end
end
