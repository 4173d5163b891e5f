# Upstream tells open browsers; the stand-in shows announcements in the API only.
class UnpublishAnnouncementWorker
  include Sidekiq::Job

  def perform(announcement_id) = announcement_id
end
