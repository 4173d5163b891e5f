# Upstream's limits that a deployment meets. Counted per client address as Rails understands it, so that a
# wrong TRUSTED_PROXY_IP shows: a private client address is then taken for a proxy.
class Rack::Attack
  def self.limit_posts(name, path, limit:, period:)
    throttle(name, limit:, period:) do |request|
      ActionDispatch::Request.new(request.env).remote_ip if request.post? && request.path.chomp("/") == path
    end
  end

  limit_posts "apps", "/api/v1/apps", limit: 5, period: 10.minutes
  limit_posts "api_sign_up", "/api/v1/accounts", limit: 5, period: 30.minutes
  limit_posts "sign_up", "/auth", limit: 25, period: 5.minutes
  limit_posts "sign_in", "/auth/sign_in", limit: 25, period: 5.minutes

  self.throttled_responder = lambda do |_request|
    [429, { "Content-Type" => "application/json", "Server" => "Mastodon" }, ['{"error":"Too many requests"}']]
  end
end
