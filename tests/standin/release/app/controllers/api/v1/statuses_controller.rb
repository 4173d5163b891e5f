class Api::V1::StatusesController < Api::BaseController
  before_action -> { require_user("write:statuses") }, only: %i[create destroy]

  def show = render(json: StatusJson.of(Status.visible.find(params[:id])))

  def create
    return schedule if params[:scheduled_at]

    # Reads come before the service's transaction: while a migration adds columns, a prepared read inside one would fail.
    media = MediaAttachment.where(id: params[:media_ids], account: @user.account, status_id: nil).to_a
    given = { visibility: params[:visibility], language: params[:language] || "en", sensitive: params[:sensitive] || false,
              spoiler_text: params[:spoiler_text].to_s, application_id: token.application_id,
              idempotency: request.headers["Idempotency-Key"].presence }
    render json: StatusJson.of(PostStatusService.new.call(@user.account, text: params[:status].to_s, media:, **given))
  end

  # Trap: the picture stays where it is, public, until the daily clean-up, unless the caller asks.
  def destroy
    status = @user.account.statuses.kept.find(params[:id])
    status.media_attachments.each(&:destroy!) if params[:delete_media] == "true"
    MediaAttachment.where(status_id: status.id).update_all(status_id: nil, created_at: Time.now.utc)
    status.update!(deleted_at: Time.now.utc)
    render json: StatusJson.of(status)
  end

  private

  # Noted, with everything that was asked for; the stand-in has no job that posts it.
  def schedule
    made = ScheduledStatus.create!(account: @user.account, scheduled_at: params[:scheduled_at],
                                   params: { text: params[:status], application_id: token.application_id })
    render json: { id: made.id.to_s, scheduled_at: made.scheduled_at.iso8601, params: made.params, media_attachments: [] }
  end
end
