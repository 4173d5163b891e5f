# Connections for feeds and messages, apart from those of Sidekiq and the cache.
module RedisPool
  POOL = ConnectionPool.new(size: 5) { Redis.new(url: Mastodon::Environment.redis_url) }

  def self.with(&) = POOL.with(&)
end
