class ApplicationController < ActionController::Base
  class NotFound < StandardError; end
  class NotPermitted < StandardError; end

  protect_from_forgery with: :exception
  helper_method :current_user, :local_domain
  rescue_from NotFound, ActiveRecord::RecordNotFound, with: -> { refuse(404, "Record not found") }
  rescue_from NotPermitted, with: -> { refuse(403, "This action is not allowed") }
  rescue_from ActionController::InvalidAuthenticityToken, with: -> { refuse(422, "Security verification failed") }
  rescue_from ActionController::ParameterMissing, with: -> { refuse(400, "A parameter is missing") }

  private

  def local_domain = Mastodon::Environment.local_domain

  def current_user
    return @current_user if defined?(@current_user)

    id = session[:activation]
    @current_user = id && SessionActivation.find_by(session_id: id)&.user
  end

  def sign_in(user)
    return_to = session[:return_to]
    reset_session
    session[:activation] = SessionActivation.begin!(user, request).session_id
    @current_user = user
    return_to
  end

  # A signed-in person who may not act yet is sent to what is missing.
  def require_user
    if current_user.nil?
      session[:return_to] = request.fullpath if request.get?
      redirect_to new_user_session_path
    elsif current_user.disabled?
      redirect_to edit_user_registration_path
    elsif !current_user.confirmed? || !current_user.approved?
      redirect_to auth_setup_path
    elsif current_user.missing_2fa?
      redirect_to settings_otp_authentication_path
    end
  end

  def require_right(right)
    require_user
    raise NotPermitted unless performed? || current_user.can?(right)
  end

  def refuse(status, message)
    return render(json: { error: message }, status:) if request.format.json?

    @message = message
    render("pages/message", formats: [:html], status:)
  end

  # The same for every anonymous reader: may be kept for a moment by nginx. No session is touched.
  def cacheable(seconds = 15)
    response.headers["Vary"] = "Accept, Accept-Language, Cookie"
    return private_answer if current_user

    expires_in(seconds, public: true, stale_while_revalidate: 30, stale_if_error: 1.day)
    request.session_options[:skip] = true
  end

  def private_answer
    response.cache_control.replace(private: true, no_store: true)
  end
end
