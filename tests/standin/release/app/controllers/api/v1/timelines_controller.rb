class Api::V1::TimelinesController < Api::BaseController
  before_action -> { require_user("read:statuses") }, only: :home

  # Nothing federates here: there are no remote posts, but the question who may read them is answered.
  def public
    access = params[:local] == "true" ? Setting.local_live_feed_access : (Setting.remote_live_feed_access)
    raise Refused.new(422, "This method requires an authenticated user") unless access == "public" || token&.user

    render json: Status.visible.public_visibility.limit(20).map { |status| StatusJson.of(status) }
  end

  def home
    ids = Feed.ids(@user.account_id)
    render json: Status.kept.where(id: ids).order(id: :desc).map { |status| StatusJson.of(status) }
  end
end
