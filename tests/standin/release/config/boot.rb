# Every program of the release comes through here first. Like upstream's, none starts half-configured:
# without the encryption keys it would write second factors that nobody could read back.
abort "RAILS_ENV is not set: start this program with the instance's environment file" if ENV["RAILS_ENV"].to_s.empty?
%w[PRIMARY_KEY DETERMINISTIC_KEY KEY_DERIVATION_SALT].map { |name| "ACTIVE_RECORD_ENCRYPTION_#{name}" }.each do |name|
  abort "#{name} is not set: the stand-in does not start without its encryption keys" if ENV[name].to_s.empty?
end
abort "REDIS_NAMESPACE is no longer supported" if ENV.key?("REDIS_NAMESPACE")

ENV["BUNDLE_GEMFILE"] ||= File.expand_path("../Gemfile", __dir__)
require "bundler/setup"
