media = ENV["S3_ALIAS_HOST"] || ENV["S3_CLOUDFRONT_HOST"] || (ENV["S3_ENABLED"] == "true" ? ENV["S3_HOSTNAME"] : nil)
media_hosts = [media, *ENV.fetch("EXTRA_MEDIA_HOSTS", "").split(/[,\s]+/)].compact.map { |host| "https://#{host.delete_prefix('https://')}" }

Rails.application.config.content_security_policy do |policy|
  policy.base_uri :none
  policy.default_src :none
  policy.frame_ancestors :none
  policy.style_src :self
  policy.img_src :self, :data, :blob, *media_hosts
  policy.media_src :self, :data, *media_hosts
  policy.connect_src :self, Mastodon::Environment.streaming_url
  policy.manifest_src :self
  policy.form_action :self
end
