class Oauth::TokensController < ActionController::API
  def create
    application = Doorkeeper::Application.find_by(uid: params[:client_id], secret: params[:client_secret])
    return render(json: { error: "invalid_client" }, status: :unauthorized) unless application

    token = params[:grant_type] == "authorization_code" ? exchange(application) : for_application(application)
    return render(json: { error: "invalid_grant" }, status: :bad_request) unless token

    render json: { access_token: token.token, token_type: "Bearer", scope: token.scopes, created_at: token.created_at.to_i }
  end

  def revoke
    Doorkeeper::AccessToken.where(token: params[:token]).update_all(revoked_at: Time.now.utc)
    render json: {}
  end

  private

  def for_application(application)
    return unless params[:grant_type] == "client_credentials"

    Doorkeeper::AccessToken.create!(application:, scopes: params[:scope] || "read")
  end

  # A code is good once and for ten minutes.
  def exchange(application)
    grant = application.id && Doorkeeper::AccessGrant.find_by(token: params[:code], application:, revoked_at: nil, created_at: 10.minutes.ago..)
    return unless grant&.destroy && grant.redirect_uri == params[:redirect_uri]

    Doorkeeper::AccessToken.create!(application:, resource_owner_id: grant.resource_owner_id, scopes: grant.scopes)
  end
end
