# Home feeds: a sorted set of post ids per account.
module Feed
  LENGTH = 400

  module_function

  def push(account_id, status_id)
    RedisPool.with do |redis|
      redis.zadd("feed:home:#{account_id}", status_id, status_id)
      redis.zremrangebyrank("feed:home:#{account_id}", 0, -(LENGTH + 1))
    end
  end

  def ids(account_id) = RedisPool.with { |redis| redis.zrevrange("feed:home:#{account_id}", 0, 39) }

  def build(account)
    RedisPool.with { |redis| redis.del("feed:home:#{account.id}") }
    account.statuses.kept.order(id: :desc).limit(LENGTH).pluck(:id).each { |id| push(account.id, id) }
  end
end
