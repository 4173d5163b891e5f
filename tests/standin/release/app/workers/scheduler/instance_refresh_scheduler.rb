# Needs the right to refresh: PostgreSQL's MAINTAIN, where the application does not own the views.
class Scheduler::InstanceRefreshScheduler
  include Sidekiq::Job
  sidekiq_options queue: "scheduler"

  def perform = ActiveRecord::Base.connection.execute("REFRESH MATERIALIZED VIEW CONCURRENTLY instances")
end
