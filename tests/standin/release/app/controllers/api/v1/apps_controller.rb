# Anybody may register an application.
class Api::V1::AppsController < Api::BaseController
  def create
    application = Doorkeeper::Application.create!(name: params[:client_name], redirect_uri: Array(params[:redirect_uris]).join("\n"),
                                                  scopes: params[:scopes] || "read", website: params[:website])
    render json: { id: application.id.to_s, name: application.name, website: application.website, redirect_uri: application.redirect_uri,
                   client_id: application.uid, client_secret: application.secret, vapid_key: ENV["VAPID_PUBLIC_KEY"] }
  end
end
