# Posts at once, as upstream's service does for people and for programs of the operator.
class PostStatusService
  def call(account, text:, visibility: nil, idempotency: nil, media: [], **attributes)
    refuse_repetition(account, idempotency) if idempotency
    post(account, media, text:, visibility: visibility || "public", local: true, language: "en", **attributes)
  end

  private

  def post(account, media, **attributes)
    status, stat = account.statuses.new(attributes), account.stat
    Status.transaction do
      status.media_attachments = media
      status.ordered_media_attachment_ids = media.map(&:id)
      status.save!
      stat.update!(statuses_count: stat.statuses_count + 1, last_status_at: Time.now.utc)
    end
    DistributionWorker.perform_async(status.id)
    status
  end

  # As observed upstream: the second request with one key fails with 500 although the first one posted.
  def refuse_repetition(account, key)
    first = RedisPool.with { |redis| redis.set("idempotency:status:#{account.id}:#{key}", "1", nx: true, ex: 3600) }
    raise "repeated key #{key}" unless first
  end
end
