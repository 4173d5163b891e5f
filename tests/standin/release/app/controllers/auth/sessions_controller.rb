# Signing in: password, then the second factor of those who have one.
class Auth::SessionsController < ApplicationController
  ATTEMPT_LASTS = 10.minutes
  before_action :private_answer

  def new; end

  def create
    given = params.fetch(:user, {}).permit(:email, :password, :otp_attempt)
    given[:otp_attempt].present? ? second_factor(given[:otp_attempt]) : password(given)
  end

  def destroy
    SessionActivation.where(session_id: session[:activation]).delete_all
    reset_session
    redirect_to new_user_session_path
  end

  private

  def password(given)
    user = User.find_by(email: given[:email].to_s.strip.downcase)
    unless user&.password?(given[:password])
      LoginActivity.create!(user:, success: false, authentication_method: "password", **origin) if user
      return reject("Invalid email or password")
    end
    return enter(user) unless user.otp_required_for_login?

    session[:attempt_user] = user.id
    session[:attempt_at] = Time.now.to_i
    render :otp
  end

  def second_factor(code)
    user = User.find_by(id: session[:attempt_user]) if session[:attempt_at].to_i > ATTEMPT_LASTS.ago.to_i
    return reject("Please start again") unless user

    user.otp?(code) ? enter(user) : reject("Invalid two-factor code", :otp)
  end

  # Trap: a frozen person gets in too, as far as the page of account settings.
  def enter(user)
    LoginActivity.create!(user:, success: true, authentication_method: user.otp_required_for_login? ? "otp" : "password", **origin)
    return_to = sign_in(user)
    redirect_to(user.disabled? ? edit_user_registration_path : return_to || root_path)
  end

  def origin = { ip: request.remote_ip, user_agent: request.user_agent.to_s, created_at: Time.now.utc }

  def reject(message, page = :new)
    @error = message
    render page, status: :unprocessable_entity
  end
end
