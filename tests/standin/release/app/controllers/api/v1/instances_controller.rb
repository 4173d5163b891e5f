# What the instance says about itself. Everybody gets the same, for three minutes.
class Api::V1::InstancesController < Api::BaseController
  before_action { expires_in(3.minutes, public: true) }

  def v1
    render json: { uri: domain, title: Setting.site_title, version: Mastodon::VERSION, standin: true, urls: { streaming_api: streaming },
                   stats: { user_count: User.where(approved: true).count, status_count: Status.kept.count, domain_count: 1 },
                   registrations: Registration.allowed?(nil), approval_required: Setting.registrations_mode == "approved",
                   invites_enabled: UserRole.everyone.can?(:invite_users), rules:, email: Setting.site_contact_email }
  end

  def v2
    render json: { domain:, title: Setting.site_title, version: Mastodon::VERSION, standin: true,
                   source_url: "", description: [Setting.site_short_description, "(stand-in release, not Mastodon)"].compact_blank.join(" "),
                   usage: { users: { active_month: 0 } }, languages: ["en"], configuration:,
                   registrations: { enabled: Registration.allowed?(nil), approval_required: Setting.registrations_mode == "approved",
                                    reason_required: Setting.require_invite_text, message: Setting.closed_registrations_message.presence,
                                    min_age: Setting.min_age, url: nil },
                   api_versions: { mastodon: Mastodon::Environment.since_4_6? ? 11 : 7 }, contact:, rules:, thumbnail: }
  end

  private

  def domain = Mastodon::Environment.local_domain
  def streaming = Mastodon::Environment.streaming_url
  def web(path) = "https://#{Mastodon::Environment.web_domain}#{path}"

  def configuration
    { urls: { streaming:, status: Setting.status_page_url.presence, about: web("/about"), privacy_policy: web("/privacy-policy") },
      vapid: { public_key: ENV["VAPID_PUBLIC_KEY"] }, statuses: { max_characters: 500, max_media_attachments: 4 },
      media_attachments: { supported_mime_types: MediaAttachment::KINDS.keys, image_size_limit: 16.megabytes },
      timelines_access: { live_feeds: { local: Setting.local_live_feed_access, remote: Setting.remote_live_feed_access },
                          hashtag_feeds: { local: Setting.local_topic_feed_access, remote: Setting.remote_topic_feed_access } },
      limited_federation: ENV["LIMITED_FEDERATION_MODE"] == "true" }
  end

  def thumbnail
    upload = SiteUpload.find_by(var: "thumbnail")
    { url: upload ? upload.url : web("/packs/preview.png"), description: Setting.thumbnail_description }
  end

  def contact
    account = Account.find_local(Setting.site_contact_username) if Setting.site_contact_username.present?
    { email: Setting.site_contact_email, account: account && StatusJson.account(account) }
  end

  def rules = Rule.kept.order(:priority, :id).map { |rule| StatusJson.rule(rule) }
end
