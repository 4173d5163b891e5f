redis = { url: Mastodon::Environment.redis_url("SIDEKIQ_") }

Sidekiq.configure_client { |config| config.redis = redis }
Sidekiq.configure_server do |config|
  config.redis = redis
  config.on(:startup) { Clock.new(config[:schedule]).start if config.queues.include?("scheduler") }
end
Sidekiq.strict_args!(false)
