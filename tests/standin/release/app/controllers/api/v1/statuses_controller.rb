class Api::V1::StatusesController < Api::BaseController
  before_action -> { require_user("write:statuses") }, only: %i[create destroy]

  def show = render(json: StatusJson.of(Status.visible.find(params[:id])))

  def create
    refuse_repetition
    return schedule if params[:scheduled_at]

    status = @user.account.statuses.new(text: params[:status].to_s, visibility: params[:visibility] || "public", local: true,
                                        language: params[:language] || "en", sensitive: params[:sensitive] || false,
                                        spoiler_text: params[:spoiler_text].to_s, application_id: token.application_id)
    save(status)
    DistributionWorker.perform_async(status.id)
    render json: StatusJson.of(status)
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

  # Reads come before the transaction: while a migration adds columns, a prepared read inside one would fail.
  def save(status)
    media = MediaAttachment.where(id: params[:media_ids], account: @user.account, status_id: nil).to_a
    stat = @user.account.stat
    Status.transaction do
      status.media_attachments = media
      status.ordered_media_attachment_ids = media.map(&:id)
      status.save!
      stat.update!(statuses_count: stat.statuses_count + 1, last_status_at: Time.now.utc)
    end
  end

  # As observed upstream: the second request with one key fails with 500 although the first one posted.
  def refuse_repetition
    key = request.headers["Idempotency-Key"].presence
    return unless key

    first = RedisPool.with { |redis| redis.set("idempotency:status:#{@user.account_id}:#{key}", "1", nx: true, ex: 3600) }
    raise "repeated Idempotency-Key" unless first
  end
end
