# A forgotten password: a link by mail, good for six hours. The page never says whether an address is known.
class Auth::PasswordsController < ApplicationController
  before_action :private_answer

  def new; end

  def create
    user = User.find_by(email: params.require(:user)[:email].to_s.strip.downcase)
    MailWorker.perform_async("reset_password", user.id) if user
    redirect_to new_user_session_path
  end

  def edit
    @token = params.require(:reset_password_token)
  end

  def update
    given = params.require(:user).permit(:reset_password_token, :password, :password_confirmation)
    user = User.find_by(reset_password_token: User.digest(given[:reset_password_token]), reset_password_sent_at: 6.hours.ago..)
    return refuse(422, "Reset password token is invalid") unless user

    user.update!(password: given[:password], password_confirmation: given[:password_confirmation], reset_password_token: nil)
    user.end_access!
    redirect_to new_user_session_path
  end
end
