# What other servers ask first.
class WellKnownController < ApplicationController
  before_action :cacheable
  skip_forgery_protection

  def host_meta
    template = "https://#{Mastodon::Environment.web_domain}/.well-known/webfinger?resource={uri}"
    render body: %(<?xml version="1.0"?><XRD xmlns="http://docs.oasis-open.org/ns/xri/xrd-1.0"><Link rel="lrdd" template="#{template}"/></XRD>),
           content_type: "application/xrd+xml"
  end

  def webfinger
    name, domain = params[:resource].to_s.delete_prefix("acct:").delete_prefix("@").split("@")
    account = Account.find_local(name) if domain.nil? || Mastodon::Environment.hosts.include?(domain)
    return head(:not_found) unless account

    links = [{ rel: "self", type: "application/activity+json", href: account.uri },
             { rel: "http://webfinger.net/rel/profile-page", type: "text/html", href: account.url }]
    render json: { subject: "acct:#{account.username}@#{local_domain}", aliases: [account.url, account.uri], links: },
           content_type: "application/jrd+json"
  end

  def nodeinfo_index
    render json: { links: [{ rel: "http://nodeinfo.diaspora.software/ns/schema/2.0", href: nodeinfo_url(protocol: "https") }] }
  end

  def nodeinfo
    users = { total: User.where(approved: true).count, activeMonth: 0, activeHalfyear: 0 }
    render json: { version: "2.0", software: { name: "mastodon", version: Mastodon::VERSION }, protocols: ["activitypub"],
                   services: { outbound: [], inbound: [] }, usage: { users:, localPosts: Status.kept.count },
                   openRegistrations: Registration.allowed?(nil), metadata: { nodeName: Setting.site_title, standin: true } }
  end
end
