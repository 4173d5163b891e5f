# Puts the scheduled jobs in, at most once per period however many processes run: the first to set the
# period's key in Redis wins.
class Clock
  def initialize(schedule)
    @schedule = schedule.to_h.transform_keys(&:to_s)
  end

  def start
    Thread.new do
      loop do
        tick
        sleep 15
      end
    end
  end

  def tick
    @schedule.each do |name, seconds|
      slot = Time.now.to_i / seconds
      first = Sidekiq.redis { |redis| redis.call("SET", "sidekiq-scheduler:#{name}:#{slot}", "1", "NX", "EX", seconds) }
      name.constantize.perform_async if first
    end
  rescue RedisClient::Error => error
    Sidekiq.logger.warn("clock: #{error.message}") # Redis away: the next tick tries again
  end
end
