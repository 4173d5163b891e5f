# Reviewing newcomers through the API: needs a scope and a right.
class Api::V1::AdminAccountsController < Api::BaseController
  before_action -> { require_user("admin:#{request.get? ? 'read' : 'write'}:accounts") }
  before_action -> { raise Refused.new(403, "This action is not allowed") unless @user.can?(:manage_users) }

  def index
    render json: User.where(approved: params[:pending] != "true").includes(:account).limit(100).map { |user| json(user) }
  end

  def approve
    user = Account.find(params[:id]).user || raise(ActiveRecord::RecordNotFound)
    user.approve!
    render json: json(user)
  end

  private

  def json(user)
    { id: user.account_id.to_s, username: user.account.username, email: user.email, confirmed: user.confirmed?, approved: user.approved?, disabled: user.disabled? }
  end
end
