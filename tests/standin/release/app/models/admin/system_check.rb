require "sidekiq/api"
require "net/http"

# What the administration page would complain about.
class Admin::SystemCheck
  Message = Struct.new(:key, :value)
  QUEUES = %w[default push ingress mailers pull scheduler fasp].freeze

  class << self
    def perform(user)
      user.can?(:view_devops) ? [missing_queues, schema_behind, no_rules, listing_open].compact : []
    end

    private

    def missing_queues
      missing = QUEUES - Sidekiq::ProcessSet.new.flat_map { |process| process["queues"] }
      Message.new(:sidekiq_process_check, missing.join(", ")) if missing.any?
    end

    def schema_behind
      Message.new(:database_schema_check) if ActiveRecord::Base.connection_pool.migration_context.needs_migration?
    end

    def no_rules
      Message.new(:rules_check) unless Rule.kept.exists?
    end

    # Anybody may read a picture; nobody may list them.
    def listing_open
      return unless ENV["S3_ENABLED"] == "true"

      answer = Net::HTTP.get_response(URI(ObjectStore.url("")))
      Message.new(:upload_check_privacy_error) if answer.body.to_s.include?("ListBucketResult")
    rescue SystemCallError, SocketError, Net::OpenTimeout, OpenSSL::SSL::SSLError => error
      Message.new(:upload_check_error, error.message)
    end
  end
end
