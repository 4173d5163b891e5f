require "ipaddr"

module Mastodon
  # What the environment file says, under upstream's variable names.
  module Environment
    module_function

    def local_domain = ENV.fetch("LOCAL_DOMAIN", "localhost:3000")
    def web_domain = ENV.fetch("WEB_DOMAIN", local_domain)
    def hosts = [local_domain, web_domain, *ENV.fetch("ALTERNATE_DOMAINS", "").split(",").map(&:strip)].uniq
    def streaming_url = ENV.fetch("STREAMING_API_BASE_URL", "wss://#{web_domain}")
    def since_4_6? = Gem::Version.new(VERSION) >= Gem::Version.new("4.6.0")

    # The list replaces Rails' own (loopback and private networks) and does not add to it.
    def trusted_proxies
      ENV["TRUSTED_PROXY_IP"]&.split(/[,\s]+/)&.map { |address| IPAddr.new(address) }
    end

    # A prefixed address (SIDEKIQ_, CACHE_) wins over the common one.
    def redis_url(prefix = "")
      return ENV["#{prefix}REDIS_URL"] if ENV["#{prefix}REDIS_URL"].to_s != ""
      return redis_url if prefix != "" && ENV["#{prefix}REDIS_HOST"].to_s == ""

      user, password, host, port, db = %w[USER PASSWORD HOST PORT DB].map { |name| ENV["#{prefix}REDIS_#{name}"] }
      login = password.to_s == "" ? "" : "#{user}:#{URI.encode_www_form_component(password)}@"
      "redis://#{login}#{host || 'localhost'}:#{port || 6379}/#{db || 0}"
    end

    def smtp
      starttls = ENV.fetch("SMTP_ENABLE_STARTTLS", "auto")
      method = ENV.fetch("SMTP_AUTH_METHOD", "plain")
      {
        address: ENV["SMTP_SERVER"], port: ENV.fetch("SMTP_PORT", 587).to_i,
        domain: ENV.fetch("SMTP_DOMAIN", local_domain),
        user_name: ENV["SMTP_LOGIN"].presence, password: ENV["SMTP_PASSWORD"].presence,
        authentication: method == "none" ? nil : method.to_sym,
        ca_file: ENV.fetch("SMTP_CA_FILE", "/etc/ssl/certs/ca-certificates.crt"),
        openssl_verify_mode: ENV["SMTP_OPENSSL_VERIFY_MODE"],
        # Only what is wanted is said: to the mail library, a "false" here would rule out what follows it.
        tls: (true if ENV["SMTP_TLS"] == "true" || ENV["SMTP_SSL"] == "true"),
        enable_starttls: { "always" => true, "never" => false }[starttls], enable_starttls_auto: starttls == "auto"
      }.compact
    end
  end
end
