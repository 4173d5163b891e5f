# A setting is a row with a YAML document. Reads go through Redis for ten minutes, so that a row written by
# SQL is not seen until then; a row written here is, once its transaction commits.
class Setting < ApplicationRecord
  DEFAULTS = YAML.load_file(Rails.root.join("config/settings.yml")).freeze
  CACHE_PREFIX = "rails_settings_cached/#{Digest::MD5.hexdigest(DEFAULTS.to_s)}".freeze

  after_commit { Rails.cache.delete("#{CACHE_PREFIX}/#{var}") }

  class << self
    def [](key)
      Rails.cache.fetch("#{CACHE_PREFIX}/#{key}") do
        row = find_by(var: key)
        row ? row.value : DEFAULTS[key.to_s]
      end
    end

    def []=(key, value)
      row = find_or_initialize_by(var: key.to_s)
      row.value = value
      row.save!
    end

    def respond_to_missing?(name, include_private = false) = DEFAULTS.key?(name.to_s.chomp("=")) || super

    def method_missing(name, *arguments)
      key = name.to_s.chomp("=")
      return super unless DEFAULTS.key?(key)

      name.end_with?("=") ? self[key] = arguments.first : self[key]
    end
  end

  def value = self[:value] && YAML.safe_load(self[:value], permitted_classes: [Symbol])
  def value=(given)
    self[:value] = given.to_yaml
  end
end
