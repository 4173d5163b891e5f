# Forgets sign-ups that were never confirmed.
class Scheduler::UserCleanupScheduler
  include Sidekiq::Job
  sidekiq_options queue: "scheduler"

  def perform = User.where(confirmed_at: nil).where(created_at: ..2.days.ago).find_each { |user| user.account.destroy! }
end
