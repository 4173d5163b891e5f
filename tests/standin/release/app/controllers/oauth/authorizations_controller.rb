# A person lets an application act for them.
class Oauth::AuthorizationsController < ApplicationController
  before_action :require_user
  before_action :private_answer
  before_action :find_application, except: :native

  def new; end

  def create
    grant = Doorkeeper::AccessGrant.create!(application: @application, resource_owner_id: current_user.id,
                                            redirect_uri: params[:redirect_uri], scopes: params[:scope] || "read")
    if params[:redirect_uri] == "urn:ietf:wg:oauth:2.0:oob"
      redirect_to oauth_native_path(code: grant.token)
    else
      redirect_to("#{params[:redirect_uri]}?#{{ code: grant.token, state: params[:state] }.compact.to_query}", allow_other_host: true)
    end
  end

  def native
    @message = params.require(:code)
    render "pages/message"
  end

  private

  def find_application
    @application = Doorkeeper::Application.find_by(uid: params[:client_id]) || raise(NotFound)
    raise NotPermitted unless @application.redirect_uri.split.include?(params[:redirect_uri])
  end
end
