redis = { url: Mastodon::Environment.redis_url("SIDEKIQ_") }

Sidekiq.configure_client { |config| config.redis = redis }
Sidekiq.configure_server do |config|
  config.redis = redis
  config.on(:startup) { Clock.new(config[:schedule]).start if config.queues.include?("scheduler") }
end
Sidekiq.strict_args!(false)

# Upstream's Sidekiq 8 writes milliseconds where Debian's 7 writes seconds. Who measures a queue must meet the former.
Sidekiq::Client.prepend(Module.new do
  private

  def atomic_push(redis, payloads)
    return super if payloads.first.key?("at")

    payloads.each { |job| job["enqueued_at"] = (Time.now.to_f * 1000).to_i }
    redis.sadd("queues", [payloads.first["queue"]])
    redis.lpush("queue:#{payloads.first['queue']}", payloads.map { |job| Sidekiq.dump_json(job) })
  end
end)
