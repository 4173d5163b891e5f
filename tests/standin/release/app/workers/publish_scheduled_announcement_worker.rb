class PublishScheduledAnnouncementWorker
  include Sidekiq::Job

  def perform(announcement_id) = Announcement.find(announcement_id).update!(published: true, published_at: Time.now.utc)
end
