# Removes uploads that no post used within a day.
class Scheduler::VacuumScheduler
  include Sidekiq::Job
  sidekiq_options queue: "scheduler"

  def perform = MediaAttachment.where(status_id: nil).where(created_at: ..1.day.ago).find_each(&:destroy!)
end
