class Api::V1::AccountsController < Api::BaseController
  before_action -> { require_token("write:accounts") }, only: :create
  before_action -> { require_user("read:accounts") }, only: :verify_credentials

  # Traps: an application's own token is enough, and a right invite code opens closed registration.
  def create
    invite = Invite.find_by(code: params[:invite_code]) if params[:invite_code].present?
    raise Refused.new(403, "Forbidden") if token.user || !Registration.allowed?(invite)

    user = User.create!(email: params[:email], password: params[:password], agreement: params[:agreement], locale: params[:locale],
                        invite:, sign_up_ip: request.remote_ip, created_by_application_id: token.application_id,
                        account: Account.new(username: params[:username]))
    render json: granted(user)
  end

  def verify_credentials = render(json: StatusJson.account(@user.account))
  def lookup = render(json: StatusJson.account(found(Account.find_local(params[:acct].to_s.split("@").first))))
  def show = render(json: StatusJson.account(found(Account.find(params[:id]))))

  def statuses
    render json: found(Account.find(params[:id])).statuses.visible.limit(20).map { |status| StatusJson.of(status) }
  end

  def directory
    render json: Account.local.without_instance_actor.where(discoverable: true, suspended_at: nil).limit(40).map { |account| StatusJson.account(account) }
  end

  private

  def found(account) = account && !account.suspended? ? account : raise(ActiveRecord::RecordNotFound)

  def granted(user)
    made = Doorkeeper::AccessToken.create!(application_id: token.application_id, resource_owner_id: user.id, scopes: token.scopes)
    { access_token: made.token, token_type: "Bearer", scope: made.scopes, created_at: made.created_at.to_i }
  end
end
