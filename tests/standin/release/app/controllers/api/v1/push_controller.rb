# Notifications that reach a browser which is not open.
class Api::V1::PushController < Api::BaseController
  before_action -> { require_user("push") }

  def create
    given = params.require(:subscription)
    WebPushSubscription.where(access_token_id: token.id).delete_all
    made = WebPushSubscription.create!(user_id: @user.id, access_token_id: token.id, endpoint: given[:endpoint],
                                       key_p256dh: given[:keys][:p256dh], key_auth: given[:keys][:auth])
    render json: { id: made.id.to_s, endpoint: made.endpoint, alerts: {} }
  end
end
