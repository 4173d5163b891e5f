require_relative "boot"
require "rails"
require "active_record/railtie"
require "action_controller/railtie"
require "action_view/railtie"
require "action_mailer/railtie"
require "bcrypt"
require "redis"
require "rotp"
require "sidekiq"
require "rack/attack"
require_relative "../lib/mastodon/version"
require_relative "../lib/mastodon/environment"

module Mastodon
  # The stand-in: behaves like a Mastodon release where the deployment product can see it, and nowhere else.
  class Application < Rails::Application
    config.load_defaults 7.2
    config.root = File.expand_path("..", __dir__)
    # Servers load the application before they fork; a verb loads what it needs. Loading Rails' own rest
    # as well would double the time to start.
    config.eager_load = Sidekiq.server? || defined?(Puma::Launcher).present?
    config.before_eager_load { |app| app.config.eager_load_namespaces.clear }
    config.enable_reloading = false
    config.consider_all_requests_local = false
    config.autoload_lib(ignore: %w[tasks mastodon])

    # Standard output only: the release is read-only and systemd keeps the journal.
    config.logger = ActiveSupport::TaggedLogging.new(ActiveSupport::Logger.new($stdout))
    config.log_level = ENV.fetch("RAILS_LOG_LEVEL", "info")
    config.public_file_server.enabled = ENV["RAILS_SERVE_STATIC_FILES"] == "true"

    config.active_record.encryption.primary_key = ENV.fetch("ACTIVE_RECORD_ENCRYPTION_PRIMARY_KEY")
    config.active_record.encryption.deterministic_key = ENV.fetch("ACTIVE_RECORD_ENCRYPTION_DETERMINISTIC_KEY")
    config.active_record.encryption.key_derivation_salt = ENV.fetch("ACTIVE_RECORD_ENCRYPTION_KEY_DERIVATION_SALT")
    config.active_record.dump_schema_after_migration = false
    config.filter_parameters += %i[password otp secret token email]

    # A foreign Host is refused and plain HTTP redirected, except for the health probe of the local proxy.
    config.hosts = Environment.hosts
    config.host_authorization = { exclude: ->(request) { request.path == "/health" } }
    config.force_ssl = true
    config.ssl_options = { redirect: { exclude: ->(request) { request.path == "/health" } },
                           hsts: { expires: 2.years, subdomains: false } }
    config.action_dispatch.trusted_proxies = Environment.trusted_proxies if Environment.trusted_proxies
    config.action_dispatch.default_headers = {
      "Server" => "Mastodon", "X-Frame-Options" => "DENY",
      "X-Content-Type-Options" => "nosniff", "Referrer-Policy" => "same-origin"
    }
    config.session_store :cookie_store, key: "_mastodon_session", secure: true, httponly: true, same_site: :lax

    # Settings live here for ten minutes: a row written past Rails is not seen until then.
    config.cache_store = :redis_cache_store, { url: Environment.redis_url("CACHE_"), namespace: "cache",
                                               expires_in: 10.minutes, connect_timeout: 5 }
    config.middleware.use Rack::Attack

    config.action_mailer.default_options = { from: ENV.fetch("SMTP_FROM_ADDRESS", "notifications@localhost") }
    config.action_mailer.default_url_options = { host: Environment.web_domain, protocol: "https" }
    config.action_mailer.delivery_method = ENV.fetch("SMTP_DELIVERY_METHOD", "smtp").to_sym
    config.action_mailer.smtp_settings = Environment.smtp
  end
end
