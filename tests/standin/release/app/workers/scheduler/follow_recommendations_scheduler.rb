class Scheduler::FollowRecommendationsScheduler
  include Sidekiq::Job
  sidekiq_options queue: "scheduler"

  def perform
    %w[account_summaries global_follow_recommendations].each do |view|
      ActiveRecord::Base.connection.execute("REFRESH MATERIALIZED VIEW CONCURRENTLY #{view}")
    end
  end
end
