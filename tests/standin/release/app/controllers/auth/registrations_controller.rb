# Signing up by the form, with or without an invite link.
class Auth::RegistrationsController < ApplicationController
  before_action :private_answer
  before_action :find_invite, except: %i[edit update]
  before_action :check_open, except: %i[acceptance edit update]
  before_action -> { redirect_to new_user_session_path unless current_user }, only: %i[edit update]
  before_action :rules_first, only: %i[new create]

  def new
    session[:form_shown_at] = Time.now.to_f
    respond_to do |format|
      format.html { @user = User.new(account: Account.new) }
      format.json { render json: { invite_code: @invite&.code, domain: local_domain } }
    end
  end

  # The reader agreed to the rules: the token travels on through the form.
  def acceptance
    session[:accept] = SecureRandom.hex
    redirect_to(@invite ? public_invite_path(@invite.code, accept: session[:accept]) : new_user_registration_path(accept: session[:accept]))
  end

  def create
    @user = User.new(user_params)
    @user.assign_attributes(invite: @invite, sign_up_ip: request.remote_ip, locale: I18n.locale.to_s,
                            filled_in_after: Time.now.to_f - session[:form_shown_at].to_f)
    return render(:new, status: :unprocessable_entity) unless @user.save

    sign_in(@user)
    redirect_to auth_setup_path
  end

  def edit; end

  # A new address counts once its owner has opened the link in the mail.
  def update
    given = params.require(:user)
    return refuse(422, "The current password is wrong") unless current_user.password?(given[:current_password])

    current_user.update!(unconfirmed_email: given[:email].to_s.strip.downcase, confirmation_token: SecureRandom.urlsafe_base64(20),
                         confirmation_sent_at: Time.now.utc)
    MailWorker.perform_async("confirmation", current_user.id)
    redirect_to edit_user_registration_path
  end

  private

  def find_invite
    code = params[:invite_code].presence || params.dig(:user, :invite_code).presence
    @invite = Invite.find_by(code:) if code
    raise NotFound if code && @invite.nil? && request.format.json?
  end

  def check_open
    return if Registration.allowed?(@invite)
    return render(json: { error: "This invite is not valid" }, status: :unauthorized) if request.format.json?

    redirect_to new_user_session_path
  end

  def rules_first
    return unless request.format.html? && Rule.kept.exists?
    return if session[:accept].present? && params[:accept] == session[:accept]

    @rules = Rule.kept.order(:priority)
    render :rules
  end

  def user_params
    params.require(:user).permit(:email, :password, :password_confirmation, :agreement, account_attributes: %i[username display_name])
  end
end
