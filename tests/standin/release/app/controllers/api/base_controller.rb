class Api::BaseController < ActionController::API
  include ActionController::Caching
  class Refused < StandardError
    attr_reader :status

    def initialize(status, message)
      @status = status
      super(message)
    end
  end

  rescue_from Refused, with: ->(error) { render json: { error: error.message }, status: error.status }
  rescue_from ActiveRecord::RecordNotFound, with: -> { render json: { error: "Record not found" }, status: :not_found }
  rescue_from ActiveRecord::RecordInvalid, with: ->(error) { render json: { error: error.message }, status: :unprocessable_entity }

  private

  def token
    @token ||= Doorkeeper::AccessToken.usable(request.authorization.to_s[/\ABearer (.+)\z/, 1] || params[:access_token])
  end

  def require_token(scope)
    raise Refused.new(401, "The access token is invalid") unless token
    raise Refused.new(403, "This action is outside the authorized scopes") unless token.allows?(scope)
  end

  def require_user(scope)
    require_token(scope)
    @user = token.user
    raise Refused.new(422, "This method requires an authenticated user") unless @user
    raise Refused.new(403, "Your login is currently disabled") if @user.disabled?
    raise Refused.new(403, "Your login is missing a confirmed e-mail address") unless @user.confirmed?
    raise Refused.new(403, "Your login is currently pending approval") unless @user.approved?
    raise Refused.new(403, "Your login is missing a second factor") if @user.missing_2fa?
  end
end
