# Setting up a second factor: a secret, one code to prove it arrived, and codes for bad days.
class Settings::OtpController < ApplicationController
  before_action :require_signed_in
  before_action :private_answer

  def show; end

  def create
    session[:new_otp_secret] = ROTP::Base32.random
    redirect_to new_settings_two_factor_authentication_confirmation_path
  end

  def confirmation
    @secret = session[:new_otp_secret] || raise(NotFound)
  end

  def confirm
    @secret = session[:new_otp_secret] || raise(NotFound)
    code = params.require(:form_two_factor_confirmation)[:otp_attempt].to_s
    return render(:confirmation, status: :unprocessable_entity) unless ROTP::TOTP.new(@secret).verify(code, drift_behind: 30)

    @codes = Array.new(10) { SecureRandom.hex(8) }
    current_user.update!(otp_secret: @secret, otp_required_for_login: true,
                         otp_backup_codes: @codes.map { |plain| BCrypt::Password.create(plain, cost: 6) })
    session.delete(:new_otp_secret)
    render :codes
  end

  private

  # Open to people whose role demands a second factor they do not have yet.
  def require_signed_in
    redirect_to new_user_session_path unless current_user && !current_user.disabled?
  end
end
