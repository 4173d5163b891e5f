# Puts a new post into home feeds and tells the streaming server.
class DistributionWorker
  include Sidekiq::Job

  def perform(status_id)
    status = Status.kept.find_by(id: status_id)
    return unless status

    Feed.push(status.account_id, status.id)
    event = { event: "update", payload: StatusJson.of(status).to_json }.to_json
    channels = ["timeline:#{status.account_id}"]
    channels += %w[timeline:public timeline:public:local] if status.public_visibility?
    RedisPool.with { |redis| channels.each { |channel| redis.publish(channel, event) } }
  end
end
