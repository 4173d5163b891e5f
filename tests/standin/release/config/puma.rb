# Read before Rails: RAILS_ENV must be in the real environment.
require_relative "boot"

threads ENV.fetch("MIN_THREADS", ENV.fetch("MAX_THREADS", 5)).to_i, ENV.fetch("MAX_THREADS", 5).to_i
if ENV["SOCKET"]
  bind "unix://#{ENV['SOCKET']}"
else
  bind "tcp://#{ENV.fetch('BIND', '127.0.0.1')}:#{ENV.fetch('PORT', 3000)}"
end
environment ENV.fetch("RAILS_ENV")
workers ENV.fetch("WEB_CONCURRENCY", 2).to_i
persistent_timeout ENV.fetch("PERSISTENT_TIMEOUT", 20).to_i
preload_app! # hence no phased restart: like upstream, a reload is no way to change the release
